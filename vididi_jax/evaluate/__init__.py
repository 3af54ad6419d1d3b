"""Evaluation of pretrained encoders by recognition: retrieval, linear probe, fine-tuning."""
