"""The Python API: `estimate` on images and tokenizers in memory."""
