"""What attention kernels and models do to each number by itself."""
