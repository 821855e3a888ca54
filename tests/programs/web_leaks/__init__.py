"""Seven web services that leak as web services do and three healthy ones: what the probe's evidence says of them.

They are no part of what the evidence was made by: nothing in the package was chosen to suit them.
"""
