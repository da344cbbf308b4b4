"""The instrumented service in several processes: ``gunicorn -c`` this file.

Each worker imports the application, and with it makes its provider, after the fork.
"""

import os

wsgi_app = "examples.ranking_service.instrumented:app"
worker_class = "uvicorn_worker.UvicornWorker"
workers = int(os.environ.get("RANKING_WORKERS", "2"))
bind = f"{os.environ.get('RANKING_HOST', '127.0.0.1')}:{os.environ.get('RANKING_PORT', '8000')}"
