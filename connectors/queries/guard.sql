-- Limits of this transaction; names are resolved as the role is used to, system names first.
select set_config('statement_timeout', %(timeout)s, true),
       set_config('lock_timeout', %(timeout)s, true),
       set_config('idle_in_transaction_session_timeout', %(timeout)s, true),
       set_config('search_path', 'pg_catalog, ' || current_setting('search_path'), true)
