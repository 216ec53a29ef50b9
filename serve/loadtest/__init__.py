"""A server measured from outside: requests of a made-up workload, each answer checked. What is known of it is its HTTP."""
