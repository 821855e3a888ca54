"""The endpoints in the process: what they answer (``endpoints``), who may ask (``access``), how they are reached.

``app`` is the ASGI application, ``wsgi`` the same for WSGI, ``server`` the thread that serves it on an address of its
own, ``feature`` what the settings bring in. Nothing is imported here.
"""
