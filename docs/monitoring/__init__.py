"""The dashboards of Grafana and the rules of Prometheus, made from the metrics."""
