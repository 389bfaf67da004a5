"""What may happen where: the rules of storage locations, as one table.

`question` has what is asked, `asking.ask` answers, `table` has the rows.
"""
