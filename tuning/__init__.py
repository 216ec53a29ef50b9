"""Training as a service: jobs and training loops of many tenants on the frozen weights that are being served.

Two kinds of work come here. A *job* is a file of rows and settings, trained to its end by graftax's own code (`jobs/`, asked
for as OpenAI's fine-tuning API has it). A *loop* is written by whoever asks: gradients, optimizer steps and samples are asked
for one by one (`loops/`, asked for as Tinker's API has it). Both share the device with the serving.
"""
