// Prior, method and settings: what the server lists, as controls.
const $ = (id) => document.getElementById(id);
let about = null;

export function fillChoices(told) {
  about = told;
  for (const prior of told.priors) $("prior").append(new Option(prior.name, prior.name));
  $("method").append(new Option(`default (${told.default_method})`, ""));
  for (const name of Object.keys(told.methods)) $("method").append(new Option(name, name));
  showPresets(null);
  $("samples").max = told.limits.samples;
  $("prior").addEventListener("change", showPrior);
  $("method").addEventListener("change", showMethod);
  showPrior();
  showMethod();
}

// The presets with about how long they take, from the seconds that the default one does.
export function showPresets(seconds) {
  const chosen = $("preset").value || "default";
  const steps = (settings) => settings.steps ?? about.default_settings.steps;
  $("preset").replaceChildren(
    ...Object.entries(about.presets).map(([name, settings]) => {
      const time = seconds === null ? null : (seconds * steps(settings)) / steps({});
      const words = time === null ? "" : ` (about ${time < 90 ? `${Math.max(1, Math.round(time))} s` : `${Math.round(time / 60)} min`})`;
      return new Option(name[0].toUpperCase() + name.slice(1) + words, name, false, name === chosen);
    }),
  );
}

function showPrior() {
  $("prior-about").textContent = about.priors.find((one) => one.name === $("prior").value)?.about ?? "";
}

function showMethod() {
  const method = about.methods[$("method").value || about.default_method];
  $("method-about").textContent = method.about;
  $("preset").disabled = Boolean($("method").value);
  $("settings").replaceChildren(...Object.entries(method.settings).map(([name, schema]) => control(name, schema)));
}

function control(name, schema) {
  const kind = schema.type ?? schema.anyOf?.find((one) => one.type !== "null")?.type;
  const choices = schema.enum ?? schema.anyOf?.find((one) => one.enum)?.enum;
  const label = document.createElement("label");
  label.title = schema.description ?? "";
  label.append(name);
  let input;
  if (choices || kind === "boolean") {
    input = document.createElement("select");
    input.append(new Option("default", ""));
    for (const one of choices ?? ["true", "false"]) input.append(new Option(one, one));
  } else {
    input = document.createElement("input");
    input.type = kind === "number" || kind === "integer" ? "number" : "text";
    input.step = kind === "integer" ? 1 : "any";
    input.size = 8;
    input.placeholder = schema.default === null || schema.default === undefined ? "" : String(schema.default);
  }
  Object.assign(input.dataset, { setting: name, kind });
  label.append(input);
  return label;
}

// Fields of a job.
export function asked() {
  const settings = $("method").value ? {} : { ...about.presets[$("preset").value] };
  for (const input of document.querySelectorAll("[data-setting]")) {
    if (input.value === "") continue;
    const { kind, setting } = input.dataset;
    settings[setting] = kind === "number" || kind === "integer" ? Number(input.value) : kind === "boolean" ? input.value === "true" : input.value;
  }
  return { prior: $("prior").value, method: $("method").value, settings: JSON.stringify(settings), seed: $("seed").value || 0 };
}
