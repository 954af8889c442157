"""Write batch scripts for Slurm."""
