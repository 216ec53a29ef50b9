"""Several replicas of a server behind one address, each on a machine of its own perhaps.

A request comes to the *front*, which reads its body, finds the model that it names, and hands the request to a replica where
that adapter has been asked for before (`front.py`). A replica is the whole server of one process, asked without a socket
(`whole_request.py`). Who begins replicas, knows where they are, begins more of them under load, and others in place of those
that have died, is Ray Serve (`graftax/fleet/ray_serving.py`).
"""
