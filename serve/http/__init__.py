"""The server: adapters asked over HTTP, in OpenAI's and vLLM's forms. `graftax serve` starts it; docs/serve.md is its manual.

Nothing below imports this folder, and it needs the extra `serve` (starlette, uvicorn).
"""
