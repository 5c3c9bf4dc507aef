"""How the blocks and commands of the documentation are made short enough to be run by a test, each with its reason."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

# Pattern -> what stands there instead, in Python blocks.
PYTHON = {
    r"result\.images\[0\]\.show\(\)": "result.images[0].load()",
    r'solver\("vipaint", levels=2\)': 'solver("vipaint", levels=2, iterations=2, refine_steps=2)',
    r'solver\("vipaint", components=8, levels=1, correct=True\)': 'solver("vipaint", components=2, levels=1, '
    "correct=True, iterations=2, refine_steps=2, particles=16, num_kept=4)",
    r'solver\("dps"(, steps=100)?\)': 'solver("dps", steps=3)',
    r"levels=2, iterations=20": "levels=2, iterations=2",
    r"particles=5412, num_kept=1024": "particles=8, num_kept=4",
    r"num_samples=1024": "num_samples=4",
    r"steps=50,": "steps=5,",
    r"steps=1000\)": "steps=4)",
    r'from_pipe\(pipe, method="langevin"\)': 'from_pipe(pipe, method="langevin", steps=2)',
    r"DPS\(denoiser, weight=100\)": "DPS(denoiser, num_steps=4)",
    r'sampler="heun", steps=18': 'sampler="heun", steps=2',
    r"DDPM\(50,": "DDPM(2,",
    r'sampler\("ddim", steps="20"': 'sampler("ddim", steps="2"',
    r"particles=256": "particles=8, steps=5",
    '"ddnm", "dps:steps=100"': '"ddnm:steps=2", "dps:steps=2"',
    r"adapt=True": "adapt=16, num_samples=1, steps=2",
    r"num_samples=16": "num_samples=2",
    r'method="psld"': 'method="psld", num_samples=1, steps=2',
    r'priorpaint\.inpaint\("photo\.png", "mask\.png", prior=prior\)': 'priorpaint.inpaint("photo.png", "mask.png", '
    "prior=prior, num_samples=1, steps=2)",
    r"prior, label=2, guidance_scale=2\.0\)": "prior, label=2, guidance_scale=2.0, num_samples=1, steps=2)",
    r"islice\(sweeps\(model, x_0, start\), 100\)": "islice(sweeps(model, x_0, start), 20)",
}


@dataclass(frozen=True)
class Rule:
    """How commands are made cheap.

    Attributes:
        command: a pattern of the commands that it is for.
        how: in words.
        options: replace the same options of the command, or come behind it; ``--set`` is added to those there.
        words: pattern -> what stands there instead.
        slow: whether it still takes several seconds.
    """

    command: str
    how: str
    options: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    slow: bool = False

    def arguments(self, words: list[str]) -> list[str]:
        """The command's arguments, cheap."""
        for pattern, instead in self.words.items():
            words = [re.sub(pattern, instead, word) for word in words]
        ours = shlex.split(self.options)
        replaced = {word for word in ours if word.startswith("-") and word != "--set"}
        out, skipping = [], False
        for word in words:
            skipping = word in replaced or skipping and not word.startswith("-")
            if not skipping:
                out.append(word)
        return out + ours


INPAINT = "--samples 1 --set steps=3 --threads 1"
STANDARD = "-n 8 --draws 1 --budget 10 --no-calibration --workers 1"
PICTURES = "--pictures 1 --samples 2 --budget 4"
TRAIN = "--crops 8 --batch 4 --threads 1 --size 32 --no-hold-out"
UNET = "--channels 8,8 --blocks 1,1"

# The first that matches is the command's.
RULES = (
    Rule(r"priorpaint (methods|operators|priors list|priors|(masks|figure|certify .*) ?--list)$", "as it stands"),
    Rule(r"priorpaint doctor", "as it stands"),
    Rule(r"priorpaint priors push my-prior/ model/", "a small prior, one sample", "--samples 1"),
    Rule(r"priorpaint priors (info|verify|add \w+) PRIOR$", "of a small prior", words={"^PRIOR$": "my-prior/"}),
    Rule(r"priorpaint priors add imagenet64 ", "a network of the same form, with narrower levels of one block",
         words={"--num_channels 192": "--num_channels 32", "--num_head_channels 64": "--num_head_channels 32",
                "--num_res_blocks 3": "--num_res_blocks 1"}),
    Rule(r"priorpaint priors add churches ", "a small network"),
    Rule(r"priorpaint inpaint .*--prior PRIOR ", "a small prior, one completion, three steps", INPAINT,
         {"^PRIOR$": "my-prior/"}),
    Rule(r"priorpaint inpaint .*--classifier ", "networks of the same form, with fewer and narrower levels",
         f"{INPAINT} --flags '--image_size 64 --class_cond True --noise_schedule cosine --num_channels 32 "
         "--num_head_channels 32 --num_res_blocks 1 --use_new_attention_order True'"),
    Rule(r"priorpaint inpaint .*--prior hf:", "small networks in the hub's cache, one completion, three steps",
         f"{INPAINT} --offline"),
    Rule(r"priorpaint batch ", "two pictures, one sample, two steps",
         "-n 1 --set steps=2 --threads 1 --workers 1 --limit 2"),
    Rule(r"priorpaint bench ", "one picture, one mask, one method of two steps",
         "--pictures 1 -n 2 --mask half --operator grayscale --method ddnm:steps=2 --settings default --threads 1"),
    Rule(r"priorpaint restore ", "a small picture, one sample, two steps", "--samples 1 --set steps=2 --threads 1"),
    Rule(r"priorpaint inpaint .*--adapt", "sixteen crops, one completion, three steps", f"{INPAINT} --adapt-crops 16"),
    Rule(r"priorpaint adapt ", "sixteen crops", "--crops 16 --threads 1"),
    Rule(r"priorpaint inpaint ", "small pictures and networks, one completion, three steps", INPAINT),
    Rule(r"priorpaint serve", "its help: a server does not end; tests/server starts one", "--help"),
    Rule(r"priorpaint masks ", "small pictures"),
    Rule(r"priorpaint figure ", "two iterations and two steps", "--samples 1 --iterations 2 --steps 2 --threads 1"),
    Rule(r"priorpaint certify --suite pictures --again", "what the folder holds is what the commands before it left"),
    Rule(r"priorpaint certify --suite pictures .*--subject fashion", "one made-up picture, one mask, one method",
         f"{PICTURES} --mask left --method ddnm --data fashion-mnist/"),
    Rule(r"priorpaint certify --suite pictures", "one picture, two completions, four evaluations, one mask",
         f"{PICTURES} --mask left"),
    Rule(r"priorpaint certify.* vipaint:components=8", "two components and two iterations on the smallest problem",
         "-n 64 --draws 1 --problem M3 --workers 1 --no-figures",
         {"components=8,levels=1": "components=2,levels=1,iterations=2,refine_steps=2"}),
    Rule(r"priorpaint certify( -o out/)?$", "one method and one problem in place of all", f"{STANDARD} --method ddnm "
         "--problem G1"),
    Rule(r"priorpaint certify ", "eight samples of one draw, ten evaluations; one copy in place of up to 16",
         STANDARD, {"^B16$": "B16-1"}),
    Rule(r"priorpaint train --autoencoder", "eight crops, a narrow network", f"{TRAIN} --channels 8,8"),
    Rule(r"priorpaint train ", "eight crops, a narrow network", f"{TRAIN} {UNET}"),
    Rule(r"priorpaint theory .*(noisy|masks)", "few images, rounds and training samples",
         "--samples 20 --rounds 12 --training 400"),
    Rule(r"priorpaint theory .*states", "few images and calls", "--samples 40 --calls 10"),
    Rule(r"priorpaint theory .*(marginals|lecture)", "few images", "--samples 20"),
    Rule(r"priorpaint sample --list$", "as it stands"),
    Rule(r"priorpaint sample ", "two pictures, two steps", "-n 2 --steps 2 --threads 1"),
    Rule(r"priorpaint likelihood ", "two steps, one probe", "--steps 2 --ode-steps 2 --probes 1 --threads 1"),
    Rule(r"python -m priorpaint.lab.losses", "two updates", "--steps 2", slow=True),
    Rule(r"priorpaint theory", "few images, repetitions and rounds", "--samples 20 --seeds 2 --rounds 12"),
    Rule(r"python -m priorpaint.lab.avatars write", "few pictures", "--num 8"),
    Rule(r"python -m priorpaint.lab.avatars sheet .*--method", "a fit and a sampling of one step each",
         words={"preset=langevin": "preset=langevin,iterations=1,refine_steps=1,refine_inner=1"}),
    Rule(r"python -m priorpaint.lab.avatars sheet", "few pictures", "--num 8"),
    Rule(r"python -m priorpaint.lab.fashion classifier", "one pass over a few made-up pictures", "--epochs 1",
         slow=True),
    Rule(r"python -m priorpaint.lab.fashion check", "made-up pictures, but as many", slow=True),
)  # fmt: skip


def rule(command: str) -> Rule:
    """How a command is made cheap; fails where nobody said it."""
    return next(rule for rule in RULES if re.match(rule.command, command))
