"""The main job: a picture and a mask in, several completions out."""
