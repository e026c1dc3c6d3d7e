"""Configurations of published results and experiments, by name: `dmaml.configs/NAME.yaml`."""
