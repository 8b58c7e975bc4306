"""What is dealt before anything secret is computed: one-time material, its demands and its delivery."""
