"""From noise to latents: schedules, guidance, solvers, and the loop that uses them."""
