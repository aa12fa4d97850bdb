"""The demo: a broker (`embedded`), recorded series and some bad records (`recording`), the real worker, and its end (`run`)."""
