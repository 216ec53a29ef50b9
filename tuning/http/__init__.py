"""OpenAI's endpoints of files and fine-tuning jobs."""
