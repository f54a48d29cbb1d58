"""What we remember: SQLModel tables, psycopg and an embedded PostgreSQL. Values in, frozen values out."""
