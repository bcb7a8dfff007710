"""Held-out questions about JSON that is pasted into them."""

import json
from functools import partial

from tests.e2e.answers import Question

CART = [
    {"item": "chair", "price": 49.5, "qty": 4},
    {"item": "desk", "price": 199, "qty": 1},
    {"item": "lamp", "price": 25, "qty": 3},
]
PEOPLE = [
    {"name": "Ingrid", "age": 34, "city": "Oslo"},
    {"name": "Tomás", "age": 27, "city": "Madrid"},
    {"name": "Wei", "age": 41, "city": "Oslo"},
    {"name": "Amara", "age": 19, "city": "Lagos"},
    {"name": "Petra", "age": 52, "city": "Prague"},
]
CONFIG = {
    "config": {"db": {"host": "db.internal", "port": 5432}, "cache": {"ttl": 300}},
    "debug": False,
    "version": "1.4.2",
}
ORDERS = {
    "orders": [
        {"id": 1, "status": "shipped", "total": 120.5},
        {"id": 2, "status": "pending", "total": 80},
        {"id": 3, "status": "shipped", "total": 45.25},
        {"id": 4, "status": "cancelled", "total": 310},
        {"id": 5, "status": "shipped", "total": 99},
    ]
}
CITIES = [
    {"name": "Hamburg", "population": 1850000},
    {"name": "Bern", "population": 134000},
    {"name": "Milan", "population": 1370000},
    {"name": "Ghent", "population": 265000},
]
INVOICES = {
    "invoices": [
        {"no": "A-1", "amount": 250, "paid": True},
        {"no": "A-2", "amount": 410.4, "paid": False},
        {"no": "A-3", "amount": 99.6, "paid": False},
    ]
}
SERVERS = {"servers": {"alpha": {"load": 0.71}, "beta": {"load": 0.12}, "gamma": {"load": 0.45}}}
USERS = [
    {"id": 1, "email": "kim@example.org"},
    {"id": 2, "email": "lee@example.org"},
    {"id": 3, "email": "max@example.org"},
]
POSTS = {
    "posts": [
        {"title": "Hello", "tags": ["intro"]},
        {"title": "Soup", "tags": ["food", "winter", "easy", "cheap"]},
        {"title": "Bye", "tags": []},
    ]
}
STOCK = [
    {"product": "pen", "stock": 140},
    {"product": "stapler", "stock": 0},
    {"product": "ruler", "stock": 12},
]
SALES = [
    {"region": "north", "revenue": 12000, "units": 30},
    {"region": "south", "revenue": 8500, "units": 22},
    {"region": "east", "revenue": 15750, "units": 41},
]


def block(value: object) -> str:
    return f"\n```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


_json = partial(Question, "json")
DOCUMENTS = (
    _json(f"What is the sum of all prices in this JSON? {line(CART)}", numbers=(49.5 + 199 + 25,)),
    _json(f"which item is the most expensive?{block(CART)}", words=("desk",), never=("chair", "lamp")),
    _json(
        f"Here are some people: {line(PEOPLE)}\nWhat's their average age?",
        numbers=((34 + 27 + 41 + 19 + 52) / 5,),
    ),
    _json(
        f"Count how many people are older than 30:{block(PEOPLE)}", words=(r"\b(?:3|three)\b",), never=("5",)
    ),
    _json(
        f"List the names of everyone who lives in Oslo. {line(PEOPLE)}",
        words=("Ingrid", "Wei"),
        never=("Tom", "Amara", "Petra"),
    ),
    _json(f"What is the value of config.db.port in {line(CONFIG)}?", words=(r"\b5432\b",)),
    _json(f"Hi, what's the host of the db in this config?{block(CONFIG)}", words=(r"db\.internal",)),
    _json(f"{line(CITIES)} how many cities are in there", words=(r"\b(?:4|four)\b",)),
    _json(f"cheapest item pls: {line(CART)}", words=("lamp",), never=("chair", "desk")),
    _json(f"How many orders have the status shipped?{block(ORDERS)}", words=(r"\b(?:3|three)\b",)),
    _json(
        f"What is the total of price times qty over all items? {line(CART)}",
        numbers=(49.5 * 4 + 199 + 25 * 3,),
    ),
    _json(
        f"Give me the names of all cities with a population above 1,000,000: {line(CITIES)}",
        words=("Hamburg", "Milan"),
        never=("Bern", "Ghent"),
    ),
    _json('What is the average score in {"scores": [80, 95, 70, 87]}?', numbers=((80 + 95 + 70 + 87) / 4,)),
    _json(f"Which server has the lowest load?{block(SERVERS)}", words=("beta",), never=("alpha", "gamma")),
    _json(
        f"Please list all the names in the following data.{block(PEOPLE)}",
        words=("Ingrid", "Tomás", "Wei", "Amara", "Petra"),
    ),
    _json(f"Sum the amounts of the invoices that are not paid: {line(INVOICES)}", numbers=(410.4 + 99.6,)),
    _json(f"Which top-level keys does this JSON have? {line(CONFIG)}", words=("config", "debug", "version")),
    _json(
        f"Who is the youngest person here? {line(PEOPLE)}",
        words=("Amara",),
        never=("Ingrid", "Tom", "Wei", "Petra"),
    ),
    _json(
        f"What email does the user with id 3 have? {line(USERS)}",
        words=(r"max@example\.org",),
        never=("kim@", "lee@"),
    ),
    _json(f"How many tags does the second post have?{block(POSTS)}", words=(r"\b(?:4|four)\b",)),
    _json(
        f"Which product is out of stock (stock 0)? {line(STOCK)}",
        words=("stapler",),
        never=(r"\bpen\b", "ruler"),
    ),
    _json(
        f"Sort these regions by revenue, highest first, and give me the names of the regions. {line(SALES)}",
        words=("east[^a-z]*(?:and |then )*north[^a-z]*(?:and |then )*south",),
    ),
    _json(
        f"what's the highest revenue and which region has it? {line(SALES)}",
        numbers=(15750,),
        words=("east",),
        never=("north", "south"),
    ),
)
