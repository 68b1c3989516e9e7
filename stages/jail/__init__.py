"""The jail: code of users runs in processes that hold nothing and reach nothing."""
