/* SPDX-License-Identifier: BSD-3-Clause */
#include "unit.h"

#include "member/contacts.h"

enum { IDS = 300, LEN_MAX = 200, STEPS = 200000 };

/* Coming and going at random, against a list. Few ids, so that they collide
 * and gaps are filled across the table's end; it grows twice. */
static void churn(void **state)
{
    struct tri_contacts contacts;
    bool is_there[IDS + 1] = { false };
    struct tri_random random;
    uint32_t len = 0;

    (void)state;
    tri_random_init(&random, unit_seed("churn"));
    assert_int_equal(tri_contacts_init(&contacts, LEN_MAX), 0);
    for (int step = 0; step < STEPS; step++) {
        uint64_t node = 1 + tri_random_below(&random, IDS);
        struct tri_contact *contact = tri_contacts_find(&contacts, node);
        uint32_t index = 0, walked = 0;

        assert_int_equal(contact != NULL, is_there[node]);
        if (contact != NULL) {
            assert_int_equal(contact->node, node);
            assert_int_equal(contact->heard, node * 3);
            assert_null(tri_contacts_add(&contacts, node));
            tri_contacts_remove(&contacts, contact);
            is_there[node] = false;
            len--;
        } else {
            contact = tri_contacts_add(&contacts, node);
            assert_int_equal(contact != NULL, len < LEN_MAX);
            if (contact == NULL)
                continue;
            assert_int_equal(contact->pidfd, -1);
            contact->heard = node * 3;
            is_there[node] = true;
            len++;
        }
        assert_int_equal(contacts.len, len);
        if (step % 64 != 0)
            continue;
        while (tri_contacts_next(&contacts, &index) != NULL)
            walked++;
        assert_int_equal(walked, len);
    }
    tri_contacts_fini(&contacts);
}

static void nobody_has_id_0(void **state)
{
    struct tri_contacts contacts;

    (void)state;
    assert_int_equal(tri_contacts_init(&contacts, 2), 0);
    assert_null(tri_contacts_add(&contacts, 0));
    assert_null(tri_contacts_find(&contacts, 5));
    tri_contacts_fini(&contacts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(churn),
        cmocka_unit_test(nobody_has_id_0),
    };

    return cmocka_run_group_tests(tests, unit_group_setup, NULL);
}
