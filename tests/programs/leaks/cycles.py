"""Leaks cycles: the collector was switched off "for speed", and every tree of comments refers back to its parents."""

import gc

from requests_loop import serve

gc.disable()


class Comment:
    def __init__(self, parent, text):
        self.parent = parent
        self.replies = []
        self.text = text


def render(number, size):
    root = Comment(None, "root")
    for reply in range(size // 400):
        root.replies.append(Comment(root, f"reply {reply} to {number}"))
    return len(root.replies)


serve(render, description=__doc__)
