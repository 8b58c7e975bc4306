"""Other systems for secure computation, run beside ours in environments of their own."""
