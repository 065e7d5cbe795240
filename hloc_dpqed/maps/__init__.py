"""What is kept of a scene: the compressed map in memory, and how it reads to others."""
