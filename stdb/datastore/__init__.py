"""Tables of one database, its transactions, and the records of its log."""
