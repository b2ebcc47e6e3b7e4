"""The local server: Open Inference Protocol v2 on loopback and unix sockets.

HTTP and gRPC are two codecs over one ``Desk``, which knows neither. Nothing here is imported
by an agent that serves nobody.
"""
