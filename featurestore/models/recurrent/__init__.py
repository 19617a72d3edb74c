"""The recurrent layer of the light models: by compiled code where there is some, else by torch."""
