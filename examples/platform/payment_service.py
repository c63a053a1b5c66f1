"""The payment service: payments of orders, and the transactions that they are made of."""

from __future__ import annotations

from peer import Refusal
from server import Answer
from service import Request, Service, count, found, text

REFUSED_CARD = "4000000000000002"
"""This card is always refused, as with the test cards of real payment providers; every other one is charged."""

SCHEMA = """
CREATE TABLE payments (
    id INTEGER PRIMARY KEY,
    order_id INTEGER NOT NULL,
    amount_cents INTEGER NOT NULL,
    card TEXT NOT NULL,
    status TEXT NOT NULL
);
CREATE TABLE transactions (
    id INTEGER PRIMARY KEY,
    payment_id INTEGER NOT NULL REFERENCES payments (id),
    kind TEXT NOT NULL,
    amount_cents INTEGER NOT NULL
);
"""

service = Service("payment-service", port=9004, schema=SCHEMA, seed={})
db = service.database


@service.route("GET", "/api/v1/payments")
def list_payments(request: Request) -> Answer:
    return Answer(document={"payments": db.rows("SELECT * FROM payments ORDER BY id DESC LIMIT ?", request.limit)})


@service.route("GET", "/api/v1/payments/{id}")
def get_payment(request: Request) -> Answer:
    return found(db.row("SELECT * FROM payments WHERE id = ?", request.params["id"]))


@service.route("POST", "/api/v1/payments")
def charge(request: Request) -> Answer:
    given = request.document()
    order_id, card = count(given, "order_id"), text(given, "card").replace(" ", "")
    amount = given.get("amount_cents")
    if not isinstance(amount, int) or isinstance(amount, bool) or amount <= 0:
        raise Refusal(400, "bad-field", "'amount_cents' must be a whole number above zero")
    status = "refused" if card == REFUSED_CARD else "captured"
    with db.transaction():
        earlier = db.row("SELECT * FROM payments WHERE order_id = ? AND status = 'captured'", order_id)
        if earlier:
            return Answer(document=earlier)  # nobody pays twice for one order
        insert = "INSERT INTO payments (order_id, amount_cents, card, status) VALUES (?, ?, ?, ?)"
        payment_id = db.write(insert, order_id, amount, f"*{card[-4:]}", status).lastrowid
        if status == "captured":
            record(payment_id, "charge", amount)
    if status == "refused":
        raise Refusal(402, "payment-refused", f"the card that ends in {card[-4:]} was refused")
    payment = db.row("SELECT * FROM payments WHERE id = ?", payment_id)
    return Answer(201, payment, {"Location": f"/api/v1/payments/{payment_id}"})


@service.route("POST", "/api/v1/payments/{id}/refund")
def refund(request: Request) -> Answer:
    with db.transaction():
        payment = get_payment(request).document
        if payment["status"] != "captured":
            raise Refusal(409, "not-captured", f"this payment is {payment['status']}")
        db.write("UPDATE payments SET status = 'refunded' WHERE id = ?", payment["id"])
        record(payment["id"], "refund", -payment["amount_cents"])
    return get_payment(request)


def record(payment_id: int | None, kind: str, amount: int) -> None:
    """Write down that money moved."""
    insert = "INSERT INTO transactions (payment_id, kind, amount_cents) VALUES (?, ?, ?)"
    db.write(insert, payment_id, kind, amount)


@service.route("GET", "/api/v1/transactions")
def list_transactions(request: Request) -> Answer:
    transactions = db.rows("SELECT * FROM transactions ORDER BY id DESC LIMIT ?", request.limit)
    return Answer(document={"transactions": transactions})


@service.route("GET", "/api/v1/transactions/{id}")
def get_transaction(request: Request) -> Answer:
    return found(db.row("SELECT * FROM transactions WHERE id = ?", request.params["id"]))


if __name__ == "__main__":
    service.main()
