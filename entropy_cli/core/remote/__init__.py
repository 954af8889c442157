"""Files elsewhere, fetched into a cache: on the Hugging Face hub, on web servers and in buckets."""
