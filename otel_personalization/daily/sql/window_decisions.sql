-- The decisions of the window, each with where it belongs.
SELECT p.cell, p.users, p.user_order, s.*
FROM stored s
JOIN placed p ON s.day = p.day AND s.ordinal = p.ordinal
