"""Archives that 7-Zip 26.02 has made of the dump in `raw_corpora`, with others beside it.

Of each the command is `7zz a -mtm=off -mtr=off OPTIONS a.7z FILES`.
"""

import base64

# By what they show, with their options.
READ = {
    # -m0=BZip2
    "BZip2": base64.b64decode(
        "N3q8ryccAATyGfJO7wAAAAAAAAAiAAAAAAAAANbDMLxCWmg5MUFZJlNZQWEy1QAAE1+AABBQAeAHsCBMgD7l/6Ag"
        "AHQgpkBpoNBpkD1MmDKTQMj1DQDQAGYCvoBXyiiNoDUI3pIqYUBR7x/E4hwXMwSKPq3ioW7g8Tj9C4x/YJpMrfYw"
        "goJYN0c1SOABYIoIHESyCVSWSZMXckU4UJBBYTLVAACBMweuD9UvssmWbCkfR0u/Q5UIMyj1B8Nq1qEKMK7L/0CN"
        "QcLV6e+tvBeiKqDTtx/q/SBKfsF2cQzBJBwCVCQ95CmNTHuK3Br1f/mFwFaTpWDAWrppdb2qv58exO6Bpl00O6C7"
        "0zEsJrLnABcGgIIBCW0ABwsBAAEjAwEBBV0AEAAADICUCgGAKBk6AAA="
    ),
    # -m0=LZMA
    "LZMA": base64.b64decode(
        "N3q8ryccAARHe3pezwAAAAAAAAAhAAAAAAAAANN29qAAHhiIJl9cqZjcxL05/uus2WKF3WYuDOaTQZ5V5okNaws8"
        "o1a8Ovvzpa11cqPtyXSuUAnm7dRWfhWm2SyPSCHFEjLWAPOgmyWT96pWJPwAwIjPyA2ojnkELVgF/9wAAACBMweu"
        "D9N2FX1AwJDTQ8Th+eigU/jKn6JWHvodxueZdnaooJ+2ANEsvugHS7BFWPg++2DIdoxyz+hQZ3GyviqcPOFVb0+y"
        "fdAXnnoiTP7k3SQflS6ARFilXwJJF3AtxrGHLqg9iMbO7CkMrIXBgAAXBl4BCXEABwsBAAEjAwEBBV0AEAAADICU"
        "CgE7wcfhAAA="
    ),
    # -m0=LZMA2
    "LZMA2": base64.b64decode(
        "N3q8ryccAATGP3ak0QAAAAAAAAAhAAAAAAAAABKNfjHgAIIAXV0AHhiIJl9cqZjcxL05/uus2WKF3WYuDOaTQZ5V"
        "5okNaws8o1a8Ovvzpa11cqPtyXSuUAnm7dRWfhWm2SyPSCHFEjLWAPOgmyWT96pWJPwAwIjPyA2ojnkELVgF/9wA"
        "AAAAgTMHrg/T0Gg9QMCQ0v99aU2PFiaD43Qp+jZ8hpJvsc5JZ86XWUprN3OguvnRQOdKPqMnrsGY1gmaxuxu2v/w"
        "lY0m4C0lkj6yrcvEOiwaV10+9OGk9Td1AlOPigKysFHilkyyuXl+V1yAABcGZQEJbAAHCwEAASMDAQEFXQAQAAAM"
        "gJQKAQW0QVgAAA=="
    ),
    # -m0=Copy
    "not packed": base64.b64decode(
        "N3q8ryccAATzk2eS6QAAAAAAAAAiAAAAAAAAAEswLBM8YmFkZ2VzIC8+CjxiYWRnZXMgLz4KPGJhZGdlcyAvPgo8"
        "cG9zdHM+Cjxyb3cgSWQ9IjEiIFBvc3RUeXBlSWQ9IjEiIFNjb3JlPSIwIiBCb2R5PSJBIHF1ZXN0aW9uLiIgVGl0"
        "bGU9IldoeT8iIC8+CjwvcG9zdHM+PHZvdGVzIC8+CgAAgTMHrk+ghT0LpqeFnQxmYd8qXHp8+7QfwEwwePBXOL19"
        "df7uiDA3GuHUmegUStEuhvZCwSvHTBWJ0jDd+7wmlqQt1Y6SHaJAFY9jnfNkAkSJrLA7oV2MfiJ3iFjTKOwFVlXM"
        "ABcGgIMBCWYABwsBAAEjAwEBBV0AEAAADICUCgHdCWnsAAA="
    ),
    # -m0=BZip2 -ms=off
    "BZip2, each by itself": base64.b64decode(
        "N3q8ryccAARaU43A/AAAAAAAAAAhAAAAAAAAAKY6OYNCWmg5MUFZJlNZyfstrQAABNmAABBAAIAFNoAIACAAIr/V"
        "RkaNCABiVoQlTilvLfF3JFOFCQyfstrQQlpoOTFBWSZTWR/3nT4AAA1fgAAQUAHgB7AgTIAOZf6gIABUNU9TQNNA"
        "0aYAAaSaB6j1AD1AabQYeGcSIdwNCHd+BkiOVRKjOIfYYqcTPXgQb+MoHkWsa0ocISxXu5kDH4gocELGXZNxdyRT"
        "hQkB/3nT4AAAgTMHrjGbsMudHWsEn9wMX1du1lXIy657WDxUealSHZMTDf4mEF9QWswrElNhxXZMHLhfAdNgFYkI"
        "n721cHkaq2gAQ6o2gHdyJ+uZY+AXBoCtAQlPAAcLAQABIwMBAQVdABAAAAxcCgFZtjoSAAA="
    ),
    # -m0=LZMA2
    "a plain header": base64.b64decode(
        "N3q8ryccAAR7YgIqVwAAAAAAAABGAAAAAAAAAGXS1sDgAFcAT10AHhwJ52cusd1izn9/NuwLaOUc4qov9r6LosKI"
        "9iYMviK2na25m4rlWiIEtAJLiHg3ETQ3prJxS21NO+N6QszidYSjHmX8H7H/Xu7IzsgAAAABBAYAAQlXAAcLAQAB"
        "ISEBAAxYAAgKARGgzAQAAAUBGQwAAAAAAAAAAAAAAAARFQBQAG8AcwB0AHMALgB4AG0AbAAAAAAA"
    ),
}
NOT_READ = {
    # -m0=PPMd
    "PPMd": base64.b64decode(
        "N3q8ryccAAR1Igd0RgAAAAAAAABGAAAAAAAAAAzTfWQAPDYDP6AjDbGgu3y+aEljpHwzLlu0Qki5aCXgh7eWiGrc"
        "kjUr8hExdi1bIVenOwxWioZZaIWASF0YdfMpYwJEvjh2yQAAAQQGAAEJRgAHCwEAASMDBAEFBgAAAQAMWAAICgER"
        "oMwEAAAFARkGAAAAAAAAERUAUABvAHMAdABzAC4AeABtAGwAAAAAAA=="
    ),
    # -psecret
    "encrypted": base64.b64decode(
        "N3q8ryccAATZCSP5YAAAAAAAAABWAAAAAAAAAIyp93Wrd5k9TqiVTFDZm5iU4ZL/688ZtL9deLpsN9OkZhXygbue"
        "yomQdiUg8uzjUrJXpt27k4di1FMBdd6S4jvq9XfhSZEmEfrj5N3QLVnxjZd7fi0QhyMQcwd1O6GSY/dl2BQBBAYA"
        "AQlgAAcLAQACJAbxBwESUw81Qerxw1+QxFHLksn5qluhISEBAAEADFdYAAgKARGgzAQAAAUBGQEAERUAUABvAHMA"
        "dABzAC4AeABtAGwAAAAAAA=="
    ),
    # -psecret -mhe=on
    "names encrypted": base64.b64decode(
        "N3q8ryccAAT57+N8wAAAAAAAAAAuAAAAAAAAAOArqhEEwjufS6cO1e2H9v/kR7j//ZBUObNOZRTcn1/Ny9z55Hbq"
        "wdeOgaiSaM2aTxZ3BdX1oyz7dKaKFTOSk6SHoFQ1JFXxpvbYTBXFZkLKOCFv0v08FfYKz5QruNny6fIjlkDwYvZr"
        "CoZVFl7tdvFbGx5o5rM6p8mBRV7qqzEg4r8eYBnuWAHVEYy5LMkpe0TCL3hUsxQd+mJJexIt/363zkXg4fsoMtVl"
        "dhnSE0fboYzEvnhDj8DhMGZlogjEa71l++EXBmABCWAABwsBAAEkBvEHARJTD6ifGjR9qeZNz2p3znlxrFAMVgoB"
        "gBY2SAAA"
    ),
}
