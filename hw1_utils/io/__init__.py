"""Disk and network: files, images, folders, weights, checkpoints. Paths, names and seeds go in, never a Config."""
