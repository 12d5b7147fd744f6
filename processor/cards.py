"""The test cards: what each `pm_card_...` id does when it is charged."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Decline:
    """Why an issuer refuses: Stripe's code, its decline code where it has one, and the words for the shopper."""

    code: str
    decline_code: str | None
    message: str
    param: str | None = None
    blocked: bool = False

    @property
    def reason(self) -> str:
        """What `outcome.reason` shows."""
        return self.decline_code or self.code

    def error(self) -> dict[str, Any]:
        """The members of the error object that come from the issuer."""
        error: dict[str, Any] = {
            "code": self.code,
            "doc_url": f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}",
            "message": self.message,
            "type": "card_error",
        }
        if self.decline_code:
            error["decline_code"] = self.decline_code
        if self.decline_code == "generic_decline":
            error.update(advice_code="try_again_later", network_decline_code="01")
        if self.param:
            error["param"] = self.param
        return error


@dataclass(frozen=True)
class Card:
    """`challenge` is when 3-D Secure is asked for: never, on_session only, or always."""

    brand: str = "visa"
    last4: str = "4242"
    country: str = "US"
    funding: str = "credit"
    decline: Decline | None = None
    challenge: str = "never"
    risk_level: str = "normal"


GENERIC = Decline("card_declined", "generic_decline", "Your card was declined.")
INSUFFICIENT_FUNDS = Decline("card_declined", "insufficient_funds", "Your card has insufficient funds.")
LOST = Decline("card_declined", "lost_card", "Your card was declined.")
STOLEN = Decline("card_declined", "stolen_card", "Your card was declined.")
FRAUDULENT = Decline("card_declined", "fraudulent", "Your card was declined.", blocked=True)
VELOCITY = Decline(
    "card_declined",
    "card_velocity_exceeded",
    "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
)
EXPIRED = Decline("expired_card", None, "Your card has expired.", param="exp_month")
INCORRECT_CVC = Decline("incorrect_cvc", None, "Your card's security code is incorrect.", param="cvc")
PROCESSING_ERROR = Decline(
    "processing_error", None, "An error occurred while processing your card. Try again in a little bit."
)
AUTHENTICATION_REQUIRED = Decline(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)

SUCCESS = {
    "visa": Card(),
    "visa_debit": Card(last4="5556", funding="debit"),
    "mastercard": Card("mastercard", "4444"),
    "mastercard_debit": Card("mastercard", "8210", funding="debit"),
    "mastercard_prepaid": Card("mastercard", "5100", funding="prepaid"),
    "amex": Card("amex", "0005"),
    "discover": Card("discover", "1117"),
    "diners": Card("diners", "0004"),
    "jcb": Card("jcb", "0505", "JP"),
    "unionpay": Card("unionpay", "0005", "CN"),
    "riskLevelElevated": Card(last4="9235", risk_level="elevated"),
    "cvcCheckFail": Card(last4="0101"),
    "avsZipFail": Card(last4="0036"),
    "avsLine1Fail": Card(last4="0028"),
    "avsFail": Card(last4="0010"),
    "avsUnchecked": Card(last4="0044"),
    "bypassPending": Card(last4="0077"),
    "bypassPendingInternational": Card(last4="0278", country="BR"),
    "threeDSecureOptional": Card(last4="3055"),
    "threeDSecureOptionalProcessingError": Card(last4="3097"),
    "amex_threeDSecureNotSupported": Card("amex", "0005"),
}
COUNTRY_CODES = (
    "us ar br ca cl co cr ec mx pa py pe uy ae at be bg by hr cy cz dk ee fi fr de gi gr hu ie it lv li lt lu mt nl no "
    "pl pt ro sa si sk es se ch gb au cn hk in jp my nz sg tw th"
)
DECLINED = {
    "chargeDeclined": Card(last4="0002", decline=GENERIC),
    "chargeDeclinedInsufficientFunds": Card(last4="9995", decline=INSUFFICIENT_FUNDS),
    "chargeDeclinedLostCard": Card(last4="9987", decline=LOST),
    "chargeDeclinedStolenCard": Card(last4="9979", decline=STOLEN),
    "chargeDeclinedVelocityLimitExceeded": Card(last4="6975", decline=VELOCITY),
    "chargeDeclinedExpiredCard": Card(last4="0069", decline=EXPIRED),
    "chargeDeclinedIncorrectCvc": Card(last4="0127", decline=INCORRECT_CVC),
    "chargeDeclinedProcessingError": Card(last4="0119", decline=PROCESSING_ERROR),
    "chargeDeclinedFraudulent": Card(last4="0019", decline=FRAUDULENT, risk_level="highest"),
    "radarBlock": Card(last4="0019", decline=FRAUDULENT, risk_level="highest"),
    "riskLevelHighest": Card(last4="4954", decline=FRAUDULENT, risk_level="highest"),
    "chargeCustomerFail": Card(last4="0341", decline=GENERIC),
}
CHALLENGED = {
    "authenticationRequired": Card(last4="3184", challenge="always"),
    "authenticationRequiredOnSetup": Card(last4="3155", challenge="on_session"),
    "authenticationRequiredSetupForOffSession": Card(last4="0446", challenge="on_session"),
    "authenticationRequiredChargeDeclinedInsufficientFunds": Card(
        last4="3178", challenge="always", decline=INSUFFICIENT_FUNDS
    ),
    "threeDSecure2Required": Card(last4="3220", challenge="always"),
    "threeDSecureRequired": Card(last4="3220", challenge="always"),
    "threeDSecureRequiredChargeDeclined": Card(last4="1629", challenge="always", decline=GENERIC),
    "threeDSecureRequiredProcessingError": Card(last4="1280", challenge="always", decline=PROCESSING_ERROR),
}
CARDS = {**SUCCESS, **{name: replace(SUCCESS["visa"], country=name.upper()) for name in COUNTRY_CODES.split()}}
CARDS = {**CARDS, **DECLINED, **CHALLENGED}


def card_named(alias: str) -> Card | None:
    """The card behind `pm_card_<name>`, or `pm_card_visa_<name>` for those that act; None if there is none."""
    if not alias.startswith("pm_card_"):
        return None
    name = alias.removeprefix("pm_card_")
    bare = name.removeprefix("visa_")
    return CARDS.get(name) or DECLINED.get(bare) or CHALLENGED.get(bare)
