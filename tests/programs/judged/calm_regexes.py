"""Flask: filters of users become regular expressions, of which Python keeps 512, and templates, of which 64 stay."""

import random
import re
from collections import OrderedDict

from flask import Flask
from jinja2 import Environment
from serving import TABLES, serve_flask

app = Flask(__name__)
templates = OrderedDict()
environment = Environment(cache_size=0)


def template(number):
    if number not in templates:
        text = "".join(
            f"<li>{number} {line} {{{{ row{line} }}}}</li>{{% if a{line} %}}!{{% endif %}}" for line in range(150)
        )
        templates[number] = environment.from_string(text)
    templates.move_to_end(number)
    while len(templates) > 64:
        templates.popitem(last=False)
    return templates[number]


@app.get("/filter/<int:number>")
def filtered(number):
    words = "|".join(f"row {random.randrange(40)} {number + word}" for word in range(40))
    pattern = re.compile(f"({words})[a-z]*\\s+{number}?")
    return {"found": sum(1 for row in TABLES["table 4"][:20] if pattern.search(row))}


@app.get("/page/<int:number>")
def page(number):
    return template(number).render(row1=number)


@app.get("/rows")
def rows():
    return {"rows": TABLES["table 2"][:30]}


serve_flask(app)
