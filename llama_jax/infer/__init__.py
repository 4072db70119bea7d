"""Text from a trained model: sampling, and a decoding loop over the model's KV cache."""
