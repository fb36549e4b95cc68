"""When each word is sung, and how well it is: from what the diffusion model listens to."""
