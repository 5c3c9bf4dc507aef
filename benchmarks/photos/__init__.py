"""How good is the prior ``photos``? `__main__` is the command line.

`pictures` has the photos and masks, `answers` what each method makes of them, `scores` what they are worth, `table` the
cells of a measurement in a file, `denoising` and `inpainting` the two measurements, `report` the pages, `sheets` the
pictures to look at; ``defaults.toml`` lists the settings that the default was chosen from.
"""
