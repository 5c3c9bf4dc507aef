"""The diffusion process: schedules, the Gaussian algebra between two times, samplers, one random stream a sample."""
