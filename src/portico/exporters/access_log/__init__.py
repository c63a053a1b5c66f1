"""The access log: a line for each request.

The end of a request costs it one small record (`recorder`). Lines are made of records many at a time, on the loop but
behind the requests (`json_lines`, `text_lines`); a thread writes them, which may wait for whatever it likes (`writer`).
"""
