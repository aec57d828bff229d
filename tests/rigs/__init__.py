"""What tests and benchmarks drive foreign programs with: released clients, a gateway process, a person's browser."""
