"""PostgreSQL: connections that may fail without harm, and the migrations of the schema."""
