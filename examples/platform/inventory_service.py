"""The inventory service: products, their stock, and the reservations of orders."""

from __future__ import annotations

import sqlite3
from typing import Any
from urllib.parse import quote

from peer import Refusal
from server import Answer
from service import Request, Service, count, found, text

SCHEMA = """
CREATE TABLE products (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    price_cents INTEGER NOT NULL,
    stock INTEGER NOT NULL CHECK (stock >= 0)
);
CREATE TABLE reservations (
    order_id INTEGER NOT NULL,
    product_id TEXT NOT NULL REFERENCES products (id),
    quantity INTEGER NOT NULL,
    PRIMARY KEY (order_id, product_id)
);
"""
INSERT_PRODUCT = "INSERT INTO products VALUES (?, ?, ?, ?)"
STOCK = """
SELECT products.id AS product_id, stock AS available, coalesce(sum(quantity), 0) AS reserved
FROM products LEFT JOIN reservations ON product_id = products.id
"""

service = Service(
    "inventory-service",
    port=9003,
    schema=SCHEMA,
    seed={
        INSERT_PRODUCT: [
            ("keyboard", "Mechanical keyboard", 8900, 1000),
            ("mouse", "Vertical mouse", 4500, 1000),
            ("monitor", "27 inch monitor", 32900, 3),
            ("lamp", "Desk lamp, sold out", 2900, 0),
        ]
    },
)
db = service.database


@service.route("GET", "/api/v1/products")
def list_products(request: Request) -> Answer:
    return Answer(document={"products": db.rows("SELECT * FROM products ORDER BY id LIMIT ?", request.limit)})


@service.route("GET", "/api/v1/products/{id}")
def get_product(request: Request) -> Answer:
    return found(db.row("SELECT * FROM products WHERE id = ?", request.params["id"]))


@service.route("POST", "/api/v1/products")
def create_product(request: Request) -> Answer:
    given = request.document()
    product_id, name = text(given, "id"), text(given, "name")
    try:
        db.write(INSERT_PRODUCT, product_id, name, count(given, "price_cents"), count(given, "stock"))
    except sqlite3.IntegrityError as error:
        raise Refusal(409, "product-exists", f"there is a product {product_id!r} already") from error
    product = db.row("SELECT * FROM products WHERE id = ?", product_id)
    return Answer(201, product, {"Location": f"/api/v1/products/{quote(product_id, safe='')}"})


@service.route("GET", "/api/v1/inventory")
def list_stock(request: Request) -> Answer:
    stock = db.rows(f"{STOCK} GROUP BY products.id ORDER BY products.id LIMIT ?", request.limit)
    return Answer(document={"inventory": stock})


@service.route("GET", "/api/v1/inventory/{id}")
def get_stock(request: Request) -> Answer:
    return found(db.row(f"{STOCK} WHERE products.id = ? GROUP BY products.id", request.params["id"]))


@service.route("POST", "/api/v1/inventory/reservations")
def reserve(request: Request) -> Answer:
    given = request.document()
    order_id, items = count(given, "order_id"), given.get("items")
    if not isinstance(items, list) or not 1 <= len(items) <= 100 or not all(isinstance(item, dict) for item in items):
        raise Refusal(400, "bad-field", "'items' must be a list of 1 to 100 objects")
    with db.transaction():  # all items or none
        lines = [reserve_item(order_id, text(item, "product_id"), count(item, "quantity")) for item in items]
    total = sum(line["quantity"] * line["price_cents"] for line in lines)
    return Answer(201, {"order_id": order_id, "items": lines, "total_cents": total})


def reserve_item(order_id: int, product_id: str, quantity: int) -> dict[str, Any]:
    """Move pieces of one product from the stock to an order."""
    product = db.row("SELECT * FROM products WHERE id = ?", product_id)
    if not product:
        raise Refusal(422, "unknown-product", f"there is no product {product_id!r}")
    if product["stock"] < quantity:
        raise Refusal(409, "out-of-stock", f"{quantity} of {product_id} asked for, {product['stock']} in stock")
    db.write("UPDATE products SET stock = stock - ? WHERE id = ?", quantity, product_id)
    add = "INSERT INTO reservations VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET quantity = quantity + excluded.quantity"
    db.write(add, order_id, product_id, quantity)
    return {"product_id": product_id, "quantity": quantity, "price_cents": product["price_cents"]}


@service.route("DELETE", "/api/v1/inventory/reservations/{order_id}")
def release(request: Request) -> Answer:
    order_id = request.params["order_id"]
    with db.transaction():
        lines = db.rows("SELECT product_id, quantity FROM reservations WHERE order_id = ?", order_id)
        for line in lines:
            db.write("UPDATE products SET stock = stock + ? WHERE id = ?", line["quantity"], line["product_id"])
        db.write("DELETE FROM reservations WHERE order_id = ?", order_id)
    return Answer(document={"released": lines})


if __name__ == "__main__":
    service.main()
