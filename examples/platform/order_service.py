"""The order service: to place an order it asks the inventory, payment and notification services."""

from __future__ import annotations

import sys
from typing import Any

from peer import Refusal
from server import Answer
from service import Request, Service, found, text

DEFAULT_CARD = "4242 4242 4242 4242"

SCHEMA = """
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer TEXT NOT NULL,
    status TEXT NOT NULL,
    total_cents INTEGER,
    payment_id INTEGER,
    reason TEXT
);
CREATE TABLE order_items (
    id INTEGER PRIMARY KEY,
    order_id INTEGER NOT NULL REFERENCES orders (id),
    product_id TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    price_cents INTEGER NOT NULL
);
"""

service = Service("order-service", port=9002, schema=SCHEMA, seed={})
inventory = service.peer("inventory-service", 9003)
payment = service.peer("payment-service", 9004)
notification = service.peer("notification-service", 9005)
db = service.database


@service.route("GET", "/api/v1/orders")
def list_orders(request: Request) -> Answer:
    return Answer(document={"orders": db.rows("SELECT * FROM orders ORDER BY id DESC LIMIT ?", request.limit)})


@service.route("GET", "/api/v1/orders/{id}")
def get_order(request: Request) -> Answer:
    return found(order(request.params["id"]))


@service.route("GET", "/api/v1/order-items")
def list_items(request: Request) -> Answer:
    return Answer(document={"order_items": db.rows("SELECT * FROM order_items ORDER BY id LIMIT ?", request.limit)})


@service.route("GET", "/api/v1/order-items/{id}")
def get_item(request: Request) -> Answer:
    return found(db.row("SELECT * FROM order_items WHERE id = ?", request.params["id"]))


@service.route("POST", "/api/v1/orders")
def place_order(request: Request) -> Answer:
    given = request.document()
    customer, card = text(given, "customer", "guest"), text(given, "card", DEFAULT_CARD)
    order_id = db.write("INSERT INTO orders (customer, status) VALUES (?, 'pending')", customer).lastrowid
    try:
        reserved = reserve_and_charge(order_id, given.get("items"), card, request.trace)
    except Exception as error:
        reason = error.document["detail"] if isinstance(error, Refusal) else "a bug"
        db.write("UPDATE orders SET status = 'rejected', reason = ? WHERE id = ?", reason, order_id)
        raise
    with db.transaction():
        for item in reserved["items"]:
            insert = "INSERT INTO order_items (order_id, product_id, quantity, price_cents) VALUES (?, ?, ?, ?)"
            db.write(insert, order_id, item["product_id"], item["quantity"], item["price_cents"])
        update = "UPDATE orders SET status = 'placed', total_cents = ?, payment_id = ? WHERE id = ?"
        db.write(update, reserved["total_cents"], reserved["payment_id"], order_id)
    notified = notify(customer, f"Your order {order_id} is placed", request.trace)
    return Answer(201, {**order(order_id), "notified": notified}, {"Location": f"/api/v1/orders/{order_id}"})


def order(order_id: Any) -> dict[str, Any]:
    """Return an order with its items, or nothing."""
    row = db.row("SELECT * FROM orders WHERE id = ?", order_id)
    items = "SELECT id, product_id, quantity, price_cents FROM order_items WHERE order_id = ? ORDER BY id"
    return {**row, "items": db.rows(items, row["id"])} if row else {}


def reserve_and_charge(order_id: Any, items: Any, card: str, trace: dict[str, str]) -> dict[str, Any]:
    """Take the goods and then the money; without the money the goods go back."""
    try:
        wanted = {"order_id": order_id, "items": items}
        reserved: dict[str, Any] = inventory.call("POST", "/api/v1/inventory/reservations", wanted, trace)
        bill = {"order_id": order_id, "amount_cents": reserved["total_cents"], "card": card}
        return {**reserved, "payment_id": payment.call("POST", "/api/v1/payments", bill, trace)["id"]}
    except Exception:
        release(order_id, trace)
        raise


def release(order_id: Any, trace: dict[str, str]) -> None:
    """Give a reservation back, if there is one."""
    try:
        inventory.call("DELETE", f"/api/v1/inventory/reservations/{order_id}", headers=trace)
    except Refusal as refusal:
        print(f"{service.instance}: order {order_id} keeps its reservation: {refusal}", file=sys.stderr, flush=True)


def notify(customer: str, message: str, trace: dict[str, str]) -> bool:
    """Tell the customer; an order that is paid for stands also when that fails."""
    try:
        notification.call("POST", "/api/v1/notifications", {"recipient": customer, "message": message}, trace)
    except Refusal:
        return False
    return True


if __name__ == "__main__":
    service.main()
