"""The protocols that programs speak at a rollout's address, each read into one `Request` and written from one `Reply`."""
