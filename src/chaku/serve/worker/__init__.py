"""A worker: the gateway in front of one engine, and its membership in the gateways that it joins."""
