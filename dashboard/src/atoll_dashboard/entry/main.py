"""What Streamlit runs anew for each page view.

In a folder of its own: beside a folder named `pages` Streamlit takes the files in there for its pages, and shows an
empty one to whoever opens `/service` before anybody has opened `/`.
"""

from atoll_dashboard.main import run

run()
