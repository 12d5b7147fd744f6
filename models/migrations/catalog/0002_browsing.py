"""What makes lists, search and suggestions quick at 100,000 products: kept counts, a vocabulary, more indexes."""

from models.migrations.sql import run_script

revision = "catalog_0002"
down_revision = "catalog_0001"

# A statement's trigger may name the rows before or after it only where there are any, hence one function for each.
ADDED = "SELECT category, search, 1 AS change FROM after WHERE active"
REMOVED = "SELECT category, search, -1 AS change FROM before WHERE active"


def upgrade() -> None:
    run_script(
        f"""
        LOCK TABLE catalog.products IN SHARE ROW EXCLUSIVE MODE;  -- nothing may slip in between counting and keeping

        -- How many products are for sale in each category, and in each with each word of the search index.
        CREATE TABLE catalog.product_counts (
            category text COLLATE "C" PRIMARY KEY,
            products bigint NOT NULL
        ) WITH (fillfactor = 50);
        CREATE TABLE catalog.word_counts (
            lexeme   text COLLATE "C",
            category text COLLATE "C",
            products bigint NOT NULL,
            PRIMARY KEY (lexeme, category)
        ) WITH (fillfactor = 80);

        -- Every word that a name has ever had, to find out what was meant by one with a typing error.
        CREATE TABLE catalog.words (word text COLLATE "C" PRIMARY KEY);

        {_counting("inserted", ADDED)}
        {_counting("updated", f"{REMOVED} UNION ALL {ADDED}")}
        {_counting("deleted", REMOVED)}

        CREATE FUNCTION catalog.learn_words() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            {_learning("after")}
            RETURN NULL;
        END $$;

        {_backfill()}

        CREATE TRIGGER count_inserted AFTER INSERT ON catalog.products
            REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION catalog.count_inserted();
        CREATE TRIGGER count_updated AFTER UPDATE ON catalog.products
            REFERENCING OLD TABLE AS before NEW TABLE AS after
            FOR EACH STATEMENT EXECUTE FUNCTION catalog.count_updated();
        CREATE TRIGGER count_deleted AFTER DELETE ON catalog.products
            REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION catalog.count_deleted();
        CREATE TRIGGER learn_inserted AFTER INSERT ON catalog.products
            REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION catalog.learn_words();
        CREATE TRIGGER learn_updated AFTER UPDATE ON catalog.products
            REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION catalog.learn_words();

        CREATE INDEX words_trigrams ON catalog.words USING gin (word catalog.gin_trgm_ops) WITH (fastupdate = off);

        -- The words most like a typed one, best first. 0.4: the share of its trigrams that a word must have; pg_trgm's
        -- own 0.6 misses swapped letters. A setting of the function, so that no transaction is needed around it.
        CREATE FUNCTION catalog.words_like(typed text, most integer) RETURNS SETOF text
        LANGUAGE sql STABLE SET pg_trgm.word_similarity_threshold = 0.4 AS $$
            SELECT word FROM catalog.words WHERE typed OPERATOR(catalog.<%) word
            ORDER BY catalog.word_similarity(typed, word) DESC, catalog.similarity(typed, word) DESC, word LIMIT most
        $$;

        -- fastupdate leaves new entries unsorted for a while, and every search has to read through them.
        DROP INDEX catalog.products_search;
        CREATE INDEX products_search ON catalog.products USING gin (search) WITH (fastupdate = off) WHERE active;
        DROP INDEX catalog.products_name_trigrams;
        CREATE INDEX products_name_words ON catalog.products
            USING gin (to_tsvector('pg_catalog.simple', name)) WITH (fastupdate = off) WHERE active;
        CREATE INDEX products_by_beginning ON catalog.products ((lower(name) COLLATE "C"), id) WHERE active;

        -- Every order a list may be asked for in, over all and within a category.
        CREATE INDEX products_by_age ON catalog.products (created_at, id) WHERE active;
        CREATE INDEX products_by_category_price ON catalog.products (category, price_amount, id) WHERE active;
        CREATE INDEX products_by_category_age ON catalog.products (category, created_at, id) WHERE active;
        """
    )


def _counting(event: str, changes: str) -> str:
    """Counters are locked in order, so that of two changes at once one waits for the other and not each for each."""
    return f"""
        CREATE FUNCTION catalog.count_{event}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO catalog.product_counts AS kept (category, products)
            SELECT category, sum(change) FROM ({changes}) AS changed
            GROUP BY category HAVING sum(change) <> 0 ORDER BY category COLLATE "C"
            ON CONFLICT (category) DO UPDATE SET products = kept.products + excluded.products;

            INSERT INTO catalog.word_counts AS kept (lexeme, category, products)
            SELECT lexeme, category, sum(change)
            FROM ({changes}) AS changed, unnest(tsvector_to_array(search)) AS lexeme
            GROUP BY lexeme, category HAVING sum(change) <> 0 ORDER BY lexeme COLLATE "C", category COLLATE "C"
            ON CONFLICT (lexeme, category) DO UPDATE SET products = kept.products + excluded.products;
            RETURN NULL;
        END $$;
    """


def _learning(rows: str) -> str:
    return f"""
        INSERT INTO catalog.words (word)
        SELECT DISTINCT word COLLATE "C"
        FROM {rows}, unnest(tsvector_to_array(to_tsvector('pg_catalog.simple', name))) AS word
        WHERE word ~ '^[[:alnum:]]{{3,64}}$' ORDER BY 1
        ON CONFLICT DO NOTHING;
    """


def _backfill() -> str:
    return f"""
        INSERT INTO catalog.product_counts (category, products)
        SELECT category, count(*) FROM catalog.products WHERE active GROUP BY category;
        INSERT INTO catalog.word_counts (lexeme, category, products)
        SELECT lexeme, category, count(*)
        FROM catalog.products, unnest(tsvector_to_array(search)) AS lexeme WHERE active GROUP BY lexeme, category;
        {_learning("catalog.products")}
    """


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
