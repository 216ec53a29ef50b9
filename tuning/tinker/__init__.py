"""Tinker's API beside the server's own: training loops that somebody writes, call by call, through the public `tinker` client.

    graftax serve -b LLAMA --training DIR          and then, in a loop of one's own:
    tinker.ServiceClient(base_url="http://127.0.0.1:8000", api_key="tml-...").create_lora_training_client("LLAMA", rank=8)

A call is answered at once by the id of a *promise*, for whose result the client asks until it is there. What one model is asked
is done in the order of its calls' numbers; what several models are asked at a moment is done in one batch (`call_order.py`).
Samples are texts of the server's own engine.
"""
