# Functions of one number, and of two with broadcasting. Derivatives of smooth functions are those of a dual number (ForwardDiff);
# a function with a kink has a method of `slope`, which says what it is there.

"""
    scalar(Val(kind), attributes) -> f

The function of one number that an operation applies to every entry of its input.
"""
function scalar end

"a kink where the arguments end: what has no value is NaN, as in PyTorch, and no error"
defined(f, holds::Bool, x) = holds ? f(x) : oftype(float(x), NaN)

scalar(::Val{:negative}, a) = -
scalar(::Val{:absolute}, a) = abs
scalar(::Val{:exp}, a) = exp
scalar(::Val{:sin}, a) = sin
scalar(::Val{:cos}, a) = cos
scalar(::Val{:tanh}, a) = NNlib.tanh_fast
scalar(::Val{:erf}, a) = erf
scalar(::Val{:log}, a) = x -> defined(log, x >= 0, x)
scalar(::Val{:sqrt}, a) = x -> defined(sqrt, x >= 0, x)
scalar(::Val{:rsqrt}, a) = x -> defined(x -> inv(sqrt(x)), x >= 0, x)
scalar(::Val{:sigmoid}, a) = NNlib.sigmoid
scalar(::Val{:relu}, a) = NNlib.relu
scalar(::Val{:selu}, a) = NNlib.selu
scalar(::Val{:silu}, a) = NNlib.swish
scalar(::Val{:mish}, a) = NNlib.mish
scalar(::Val{:softsign}, a) = NNlib.softsign
scalar(::Val{:logsigmoid}, a) = NNlib.logsigmoid
scalar(::Val{:gelu}, a) = a.form === :erf ? gelu_of_erf : NNlib.gelu_tanh
scalar(::Val{:power}, a) = Power(Float64(a.exponent))
scalar(::Val{:clamp}, a) = Between(Float64(a.low), Float64(a.high), true)
scalar(::Val{:hardtanh}, a) = Between(Float64(a.low), Float64(a.high), false)
scalar(::Val{:leaky_relu}, a) = Bent(Float64(a.slope))
scalar(::Val{:elu}, a) = Elu(Float64(a.alpha), Float64(a.scale))
scalar(::Val{:softplus}, a) = Softplus(Float64(a.beta), Float64(a.threshold))
scalar(::Val{:hardsigmoid}, a) = hard_sigmoid
scalar(::Val{:hardswish}, a) = hard_swish

const Scalar = Union{Val{:negative},Val{:absolute},Val{:exp},Val{:sin},Val{:cos},Val{:tanh},Val{:erf},Val{:log},Val{:sqrt},
    Val{:rsqrt},Val{:sigmoid},Val{:relu},Val{:selu},Val{:silu},Val{:mish},Val{:softsign},Val{:logsigmoid},Val{:gelu},Val{:power},
    Val{:clamp},Val{:hardtanh},Val{:leaky_relu},Val{:elu},Val{:softplus},Val{:hardsigmoid},Val{:hardswish}}

operation(kind::Scalar, ::Batch, a, x) = each_entry(scalar(kind, a), x)

function node_pullback(kind::Scalar, ::Batch, a, x)
    y, slopes = with_slopes(scalar(kind, a), x)
    return y, d -> (reshape(vec(d) .* vec(slopes), size(x)),)
end

"a function of every entry, and its derivatives, in one pass"
function with_slopes(f::F, x::AbstractArray{T}) where {F,T} # F: Julia has no code of its own for a function that is only passed on
    y, slopes = similar(x), similar(x)
    @inbounds @simd for k in eachindex(x, y, slopes)
        y[k], slopes[k] = value_and_slope(f, x[k])
    end
    return y, slopes
end

"what both take is computed once, where there is a method for it"
value_and_slope(f, x::Real) = f(x), derivative(f, x)

function value_and_slope(::typeof(NNlib.tanh_fast), x::Real)
    t = NNlib.tanh_fast(x)
    return t, 1 - t^2
end

function value_and_slope(::typeof(NNlib.gelu_tanh), x::T) where {T<:Real}
    root, cubic = T(sqrt(2 / pi)), T(0.044715)
    t = NNlib.tanh_fast(root * x * (1 + cubic * x^2))
    return x * (1 + t) / 2, (1 + t) / 2 + x * (1 - t^2) * root * (1 + 3cubic * x^2) / 2
end

"over a vector, whatever the axes: it is compiled for each function once"
each_entry(f, x::AbstractArray) = reshape(map(f, vec(x)), size(x))

"the derivative of a function of one number: by its `slope`, or along a dual number"
derivative(f, x::Real) = carried_along(f(Along(x, one(x))))
derivative(f::Branching, x::Real) = slope(f, x)

"x Phi(x), from `erfc` so that it keeps its digits in the tail"
gelu_of_erf(x) = x * erfc(-x / sqrt(oftype(x, 2))) / 2

function value_and_slope(::typeof(gelu_of_erf), x::T) where {T<:Real}
    below = erfc(-x / sqrt(T(2))) / 2
    return x * below, below + x * exp(-x^2 / 2) / T(sqrt(2pi))
end

"x^exponent"
struct Power
    exponent::Float64
end
(f::Power)(x) = x < 0 && !isinteger(f.exponent) ? oftype(x, NaN) : x^oftype(x, f.exponent)
function derivative(f::Power, x::Real)
    return iszero(f.exponent) ? zero(x) : oftype(x, f.exponent) * Power(f.exponent - 1)(x)
end

"min(max(x, low), high); `closed` says whether its slope is 1 at the bounds"
struct Between
    low::Float64
    high::Float64
    closed::Bool
end
(f::Between)(x) = min(max(x, oftype(x, f.low)), oftype(x, f.high))
derivative(f::Between, x::Real) = oftype(x, f.closed ? f.low <= x <= f.high : f.low < x < f.high)

"x where x > 0, else slope x"
struct Bent
    slope::Float64
end
(f::Bent)(x) = x > 0 ? x : oftype(x, f.slope) * x
derivative(f::Bent, x::Real) = x > 0 ? one(x) : oftype(x, f.slope)

"x where x > 0, else alpha (e^(x/scale) - 1)"
struct Elu
    alpha::Float64
    scale::Float64
end
(f::Elu)(x) = x > 0 ? x : oftype(x, f.alpha) * expm1(x / oftype(x, f.scale))
derivative(f::Elu, x::Real) = x > 0 ? one(x) : oftype(x, f.alpha / f.scale) * exp(x / oftype(x, f.scale))

"log(1 + e^(beta x)) / beta; x above the threshold"
struct Softplus
    beta::Float64
    threshold::Float64
end
function (f::Softplus)(x)
    z = oftype(x, f.beta) * x
    return z > f.threshold ? x : NNlib.softplus(z) / oftype(x, f.beta)
end
derivative(f::Softplus, x::Real) = f.beta * x > f.threshold ? one(x) : logistic(oftype(x, f.beta) * x)

"max(0, min(x + 3, 6)) / 6, with slope 0 at the bounds"
hard_sigmoid(x) = min(max(x + 3, zero(x)), oftype(x, 6)) / 6
derivative(::typeof(hard_sigmoid), x::Real) = -3 < x < 3 ? inv(oftype(x, 6)) : zero(x)

"x times that, with the slope from inside at the bounds"
hard_swish(x) = x * hard_sigmoid(x)
derivative(::typeof(hard_swish), x::Real) = x < -3 ? zero(x) : x <= 3 ? x / 3 + inv(oftype(x, 2)) : one(x)

# Two inputs, broadcast: `partials(kind, x, y, z)` gives the derivatives of z by both.

const Pairwise = Union{Val{:add},Val{:subtract},Val{:multiply},Val{:divide},Val{:maximum},Val{:minimum}}

pairwise(::Val{:add}) = +
pairwise(::Val{:subtract}) = -
pairwise(::Val{:multiply}) = *
pairwise(::Val{:divide}) = /
pairwise(::Val{:maximum}) = larger
pairwise(::Val{:minimum}) = smaller

larger(x, y) = max(x, y)
larger(x::Along, y::Real) = blend(wins(x, y), x, y)
larger(x::Real, y::Along) = blend(wins(x, y), x, y)
larger(x::Along, y::Along) = blend(wins(x, y), x, y)
smaller(x, y) = -larger(-x, -y)

"the share of the first, and of the second what is left"
blend(share, x, y) = isnan(x) || isnan(y) ? x + y : share == 1 ? x + zero(y) : share == 0 ? y + zero(x) : (x + y) / 2

"what comes back to both inputs"
backs(::Val{:add}, d, x, y) = d, d
backs(::Val{:subtract}, d, x, y) = d, .-d
backs(::Val{:multiply}, d, x, y) = d .* y, d .* x
backs(::Val{:divide}, d, x, y) = d ./ y, .-d .* x ./ y .^ 2
backs(::Val{:maximum}, d, x, y) = d .* wins.(x, y), d .* wins.(y, x)
backs(::Val{:minimum}, d, x, y) = d .* wins.(y, x), d .* wins.(x, y)

"1 where the first is larger, 1/2 where both are equal, else 0"
wins(x::T, y::T) where {T<:AbstractFloat} = x == y ? T(0.5) : T(x > y)
wins(x::Real, y::Real) = wins(at_value(x), at_value(y))

operation(kind::Pairwise, ::Batch, a, x, y) = as_array(pairwise(kind).(x, y))

function node_pullback(kind::Pairwise, batch::Batch, a, x, y)
    back(d) = map((part, own) -> unbroadcast(as_array(part), size(own)), backs(kind, d, x, y), (x, y))
    return operation(kind, batch, a, x, y), back
end

# Choices.

operation(::Val{:where}, ::Batch, a, holds, x, y) = as_array(chosen.(holds, x, y))

"one of two numbers, in the type of both"
chosen(holds, x, y) = ifelse(holds, promote(x, y)...)

function node_pullback(kind::Val{:where}, batch::Batch, a, holds, x, y)
    function back(d)
        none = zero(eltype(d))
        parts = as_array(ifelse.(holds, d, none)), as_array(ifelse.(holds, none, d))
        return nothing, unbroadcast(parts[1], size(x)), unbroadcast(parts[2], size(y))
    end
    return operation(kind, batch, a, holds, x, y), back
end

operation(::Val{:prelu}, ::Batch, a, x, w) = as_array(ifelse.(at_value.(x) .> 0, x, w .* x))

function node_pullback(kind::Val{:prelu}, batch::Batch, a, x, w)
    function back(d)
        above = at_value.(x) .> 0
        by_slope = as_array(chosen.(above, zero(eltype(d)), d .* x))
        return as_array(chosen.(above, d, d .* w)), unbroadcast(by_slope, size(w))
    end
    return operation(kind, batch, a, x, w), back
end

# What has no derivative.

const RELATIONS = (less=(<), less_equal=(<=), equal=(==), not_equal=(!=), greater=(>), greater_equal=(>=))
const LOGIC = (; :not => (!), :and => (&), :or => (|))

const Constant = Union{Val{:fill},Val{:compare},Val{:logical},Val{:cast},Val{:whole},Val{:stop_gradient}}

operation(::Val{:fill}, batch::Batch{T}, a) where {T} = fill(T(a.value), extents(batch, a.shape))
operation(::Val{:compare}, ::Batch, a, x, y) = as_array(RELATIONS[a.relation].(at_value(x), at_value(y)))
operation(::Val{:logical}, ::Batch, a, xs...) = as_array(LOGIC[a.function].(xs...))
operation(::Val{:cast}, ::Batch{T}, a, x) where {T} = as_array(T.(x))
operation(::Val{:whole}, ::Batch, a, x) = as_array(round.(Int, at_value(x))) # of two the even one
operation(::Val{:stop_gradient}, ::Batch, a, x) = x

function node_pullback(kind::Constant, batch::Batch, a, inputs...)
    return operation(kind, batch, a, inputs...), d -> map(_ -> nothing, inputs)
end
